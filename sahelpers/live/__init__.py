"""The dashboards, for JupyterLab and Colab: thin views of controllers that know no widget.

`from sahelpers import live` is the way in; nothing else in the package imports it.
"""

from .attacking import ProbeController, ProbeDashboard
from .base import Tabs
from .exploring import LatentController, LatentExplorer, principal_directions
from .forgetting import AmnesiaController, AmnesiaDashboard
from .worker import models_there

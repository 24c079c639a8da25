"""The dashboards, for JupyterLab and Colab: thin views of controllers that know no widget."""

from .attack import ProbeController, ProbeDashboard
from .base import Tabs
from .explore import LatentController, LatentExplorer
from .forget import AmnesiaController, AmnesiaDashboard
from .worker import models_there

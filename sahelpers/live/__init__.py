"""The dashboards, for JupyterLab and Colab: thin views of controllers that know no widget."""

from .attack import ProbeController, ProbeDashboard
from .explore import LatentController, LatentExplorer
from .forget import AmnesiaController, AmnesiaDashboard

"""The dashboards: thin views of the controllers, for JupyterLab and Colab."""

from .amnesia import AmnesiaDashboard
from .latent import LatentExplorer
from .probe import ProbeDashboard

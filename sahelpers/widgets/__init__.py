"""The dashboards: thin views of the controllers, for JupyterLab and Colab."""

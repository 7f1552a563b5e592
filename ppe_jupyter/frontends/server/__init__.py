"""The Jupyter server extension, which the sidebar asks, and what passes between browser and RStudio."""

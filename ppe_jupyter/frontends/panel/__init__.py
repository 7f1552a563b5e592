"""The panel: clusters to look at and click, as ipywidgets in a notebook."""

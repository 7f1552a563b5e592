"""What a user types and sees; parse, call the manager, show.

Each of its rooms imports only from those above it and from the files beside them, but ``cli``, which joins them.

- ``rstudio``   RStudio Server in a tab of the lab, and the tunnel to it
- ``panel``     ipywidgets: clusters to look at and click
- ``actions``   what each verb does, for all who type it
- ``notebook``  magics and remote cells
- ``server``    the extension of Jupyter's server
"""

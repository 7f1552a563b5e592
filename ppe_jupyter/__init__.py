"""ppe_jupyter: launch Open MPI + R clusters on EC2 from Jupyter and use them as if they were here."""

__version__ = "0.1.0"

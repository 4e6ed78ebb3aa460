"""L2 DASH: hidden-Markov regime models on Level-2 order books, live at Interactive Brokers."""

__version__ = "0.1.0"

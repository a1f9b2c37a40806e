"""Where episodes come from. `base` is the protocol; one module for each kind of source."""

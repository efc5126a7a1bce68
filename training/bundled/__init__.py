"""How the checkpoints that come with the repository were trained, and the gate that holds their figures."""

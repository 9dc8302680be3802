"""Jobs: their state, their queue and their way through Triton."""

"""Where each stack is trained: layouts, a cost model, and the choice."""

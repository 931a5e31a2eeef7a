"""The classification tasks and pre-training: each wires a model, a loss, data and evaluations into one `Task`."""

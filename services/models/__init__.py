"""How a model is called: the vocabulary of calls and permits, the catalogue, the provider adapter, the permit guard, prices and estimates."""

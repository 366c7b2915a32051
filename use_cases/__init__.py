"""Use cases: each a pack of data, training, int8 model, policy, golden inputs and key figures."""

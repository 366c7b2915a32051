"""Running models: runtimes behind one interface, in a worker process or in this one."""

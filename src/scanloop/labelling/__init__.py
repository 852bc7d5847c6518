"""Labels by people: published queues, tasks on lease, readings that are only ever added, and labels as of any time."""

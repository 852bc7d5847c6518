"""Migrations of the label store, run by `scanloop.labelling.store.open_store`."""

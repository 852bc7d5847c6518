"""TorchServe behind the server's own guard: tried alternative (docs/decisions/0020-torchserve-is-kept-aside.md)."""

"""The steps of the loop, one public function each: the only door that the command line, KFP, tests and notebooks use."""

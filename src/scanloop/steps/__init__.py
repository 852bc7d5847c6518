"""The steps of the loop, one public function each: the only door for command line, KFP, tests and notebooks."""

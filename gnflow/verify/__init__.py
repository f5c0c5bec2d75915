"""Check of claims that hold for every optimizer and every derivative, on a small copy of any experiment."""

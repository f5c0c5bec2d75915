"""What every optimizer and every derivative must do, checked on a small copy of any experiment."""

"""Problems with a real solver behind them: the data of the demo and of the benchmarks."""

"""What is left of Neptune: offline folders (`offline`), and the Parquet files of its exporter (`exported`)."""

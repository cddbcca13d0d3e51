"""What all suites share: samples, ways to answer, runs that can be killed, statistics, reports."""

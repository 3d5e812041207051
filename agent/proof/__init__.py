"""The dry proof test of interlocks: every row of a site driven through trip, hold, clear and reset, without any device."""

package main

import "io"

func runExhaustive(io.Writer) int { return 0 }

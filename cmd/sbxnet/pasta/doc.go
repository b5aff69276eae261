// Package pasta is sbxnet under the name of pasta and pesto.
package pasta

// Package getopt reads command lines as GNU getopt_long does. The programs that
// sbxnet stands in for use it, and their callers rely on its habits: options
// and operands in any order, "--mtu 1500" as well as "--mtu=1500", "-ce3" for
// "-c -e 3", a long option cut short where that is unambiguous, and its wording
// of errors, which some of them search for.
//
// Parse turns arguments into what they say, in order, so that the last of two
// options can win. What a value means is the caller's.
package getopt

// Package e2e tests the sbxnet program from outside: it builds the binary, runs
// it as a user would, with real programs on both ends, and after each test
// asserts that nothing is left.
//
// Most tests run on the machine as it is and talk to its loopback only. Those
// that need a host with addresses of its own, and a remote client, run in a
// world: user, network and mount namespaces that the test makes, in which the
// test binary runs itself again. See world_test.go.
package e2e

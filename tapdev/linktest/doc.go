// Package linktest lets whoever runs the tests choose the links that tests open,
// so that every test can be run with either kind of link, any number of queues
// and each offload switched off. Only tests import it, and the program only where
// tests build it with [Choice.BuildFlags].
//
// The environment variable SBXNET_TEST_LINK has the choice, such as
//
//	link=packet num-network-channels=4 gso=false
//
// in the words of `sbxnet run`'s flags, which [Choice.Flags] makes of it for tests
// of the program; [Choice.BuildFlags] is for tests of the tools that the program
// stands in for, which have no such flags, and [Choice.Apply] for tests that open a
// link themselves. What a test itself chooses, because that is what it is about, it
// keeps; so does what a tool promises, such as slirp4netns its TAP.
package linktest

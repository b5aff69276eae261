// Command sbxbench measures sbxnet, native loopback and every peer that is
// installed, side by side in one run.
//
// It is both ends of every load. A network (network.go) is a way to give a
// process a network: none at all, which is native loopback, a sandbox of
// sbxnet's, or a peer's. In each, sbxbench starts itself again as a worker
// (worker.go), which takes orders on standard input and answers on standard
// output. A measurement (measurements.go) is one load (load.go) between worker
// and server (server.go), in one direction. Rounds go through all networks in
// turn, so that what disturbs the machine disturbs all of them; a figure is the
// median of its rounds, and beside it stands its ratio to native loopback in
// the same run. Absolute figures drift from day to day, ratios hold.
package main

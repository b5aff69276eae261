// Command sbxbench measures sbxnet, native loopback and every peer that is
// installed, side by side in one run.
//
// It is both ends of every load. A network (network.go, peers.go) is a way to
// give a process a network: none at all, which is native loopback, a sandbox of
// sbxnet's, or a peer's. In each, sbxbench starts itself again as a worker
// (worker.go), which takes orders on standard input and answers on standard
// output. A measurement (measurements.go) is one load (load.go) between worker
// and server (server.go), in one direction, with the figures to read off it.
//
// Rounds (run.go) go through all networks in turn, so that what disturbs the
// machine disturbs all of them; a figure is the median of its rounds, and beside
// it stands its ratio to native loopback in the same run. Absolute figures drift
// from day to day, ratios hold. What nothing costs, and ten thousand idle
// connections, is looked at last (idle.go). Variants of sbxnet, with an offload
// off or more queues, take only what that can move.
//
// The report (table.go) says which of the project's goals (goals.go) the run has
// reached. With --check (check.go) it is held against the table that is checked
// in, baseline.json: by ratio, or by value where there is no native figure, and
// 15 % worse is a failure. Nothing of this runs in CI: machines differ.
//
// The bench needs no privilege, sends nothing beyond the machine, and ends what
// the tools leave behind (processes.go).
package main

//go:build !race

package kerneltest

// raceEnabled says that everything takes ten times as long.
const raceEnabled = false

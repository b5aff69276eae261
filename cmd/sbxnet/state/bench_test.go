package state

import (
	"testing"

	"sbxnet/cmd/sbxnet/network"
)

// What a sandbox spends on being found and spoken to.
func BenchmarkStartAndEnd(b *testing.B) {
	b.Setenv("XDG_RUNTIME_DIR", b.TempDir())
	for b.Loop() {
		d, err := CreateNamedFor("true")
		if err != nil {
			b.Fatal(err)
		}
		s, err := Serve(Sandbox{Dir: d, ChildPID: 1, Ports: network.NoPorts("none")})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
		d.Close()
	}
}

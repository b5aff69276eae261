package socket

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestRingIsAQueueOfBytes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var r ring
	var model []byte
	next := byte(0)
	for range 3000 {
		if random.IntN(2) == 0 {
			p := make([]byte, random.IntN(40000))
			for i := range p {
				p[i] = next + byte(i)
			}
			n := r.write(p)
			if want := min(len(p), ringLimit-len(model)); n != want {
				t.Fatalf("write took %d of %d, want %d", n, len(p), want)
			}
			next += byte(n)
			model = append(model, p[:n]...)
		} else {
			p := make([]byte, random.IntN(40000))
			n := r.read(p)
			if n != min(len(p), len(model)) || !bytes.Equal(p[:n], model[:n]) {
				t.Fatalf("read gave %d bytes of %d", n, len(model))
			}
			model = model[n:]
		}
		if r.len != len(model) || len(r.buf) > ringLimit {
			t.Fatalf("holds %d in %d, want %d", r.len, len(r.buf), len(model))
		}
	}
}

package portfwd

import (
	"io"
	"testing"
	"time"

	"sbxnet/netstack"
)

// mapped is the buffer memory of all shards, in bytes.
func (w *world) mapped() (n int) {
	for _, s := range w.fwd.shards {
		s.call(func() { n += s.memory.slabs.Mapped() })
	}
	return n
}

func TestBuffersOfAnIdleSandboxGoBackToTheKernel(t *testing.T) {
	w := newWorld(t)
	near, far := w.connect(outside4)
	const size = 64 << 20 // half of it is more than the kernels' buffers hold
	go func() {
		far.Write(make([]byte, size))
	}()
	if _, err := io.CopyN(io.Discard, near, size/2); err != nil {
		t.Fatal(err)
	}
	if w.mapped() == 0 {
		t.Fatal("no memory is mapped in the middle of a transfer")
	}
	if _, err := io.CopyN(io.Discard, near, size/2); err != nil {
		t.Fatal(err)
	}
	// The connection stays open.
	for began := time.Now(); w.mapped() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("%d bytes are still mapped", w.mapped())
		}
	}
	if held := w.inStacks(func(st *netstack.Stats) int { return st.TCP.BufferBytes }); held != 0 {
		t.Errorf("statistics say that %d bytes are held", held)
	}
	// And is as good as before.
	w.exchangeByte(t, far, near)
	w.exchangeByte(t, near, far)
}

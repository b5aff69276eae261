package stackroom

import (
	"testing"
	"unsafe"
)

// moves reports whether the stack of a goroutine that begins with take is
// elsewhere after use.
func moves(take func(), use func(bool) byte) bool {
	moved := make(chan bool)
	go func() {
		take()
		var here byte
		before := uintptr(unsafe.Pointer(&here))
		use(true)
		moved <- uintptr(unsafe.Pointer(&here)) != before
	}()
	return <-moved
}

func TestStackStaysWhereItIsOnceThereIsRoom(t *testing.T) {
	for _, c := range []struct {
		name string
		take func()
		use  func(bool) byte
		want bool
	}{
		{"nothing taken", func() {}, small, true},
		{"taken", Take, small, false},
		{"too little taken", Take, large, true},
		{"much taken", TakeMuch, large, false},
	} {
		if got := moves(c.take, c.use); got != c.want {
			t.Errorf("%s: the stack moved: %v, want %v", c.name, got, c.want)
		}
	}
}

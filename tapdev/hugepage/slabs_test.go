package hugepage

import (
	"math/rand/v2"
	"testing"
	"unsafe"
)

func TestMapIsAlignedZeroedAndWritable(t *testing.T) {
	for _, n := range []int{1, Size, Size + 1, 5 * Size} {
		b, err := Map(n)
		if err != nil {
			t.Fatal(err)
		}
		if at := uintptr(unsafe.Pointer(&b[0])); at%Size != 0 || len(b) < n || len(b)%Size != 0 {
			t.Errorf("Map(%d): %d bytes at %#x", n, len(b), at)
		}
		for i := range b {
			if b[i] != 0 {
				t.Fatalf("Map(%d): byte %d is %d", n, i, b[i])
			}
		}
		b[0], b[len(b)-1] = 1, 1
		Unmap(b)
	}
}

func TestMakeIsAlignedAndZeroed(t *testing.T) {
	for _, n := range []int{1, Size, Size + 1} {
		b := Make(n)
		if at := uintptr(unsafe.Pointer(&b[0])); at%Size != 0 || len(b) < n || len(b) != cap(b) {
			t.Errorf("Make(%d): %d bytes, capacity %d, at %#x", n, len(b), cap(b), at)
		}
		for i := range b {
			if b[i] != 0 {
				t.Fatalf("Make(%d): byte %d is %d", n, i, b[i])
			}
		}
	}
}

func TestEnlargedMemoryIsUsable(t *testing.T) {
	b := Make(Size)
	b[0], b[Size-1] = 1, 1
	Enlarge(b)
	for i := range b {
		b[i] = byte(i)
	}
	for i := range b {
		if b[i] != byte(i) {
			t.Fatalf("byte %d is %d", i, b[i])
		}
	}
}

// Chunks are never handed out twice, keep what is written to them, and slabs go
// back to the kernel.
func TestChunksAreDistinctAndSlabsGoBack(t *testing.T) {
	var s Slabs
	defer s.Close()
	random := rand.New(rand.NewPCG(1, 2))
	type held struct {
		chunk *[ChunkSize]byte
		mark  byte
	}
	var have []held
	most := 0
	for step := range 20000 {
		grow := step/2500%2 == 0
		if grow == (random.IntN(5) > 0) {
			c := s.Get()
			if c == nil {
				t.Fatal("no memory")
			}
			mark := byte(random.Uint32())
			c[0], c[ChunkSize-1] = mark, mark
			have = append(have, held{c, mark})
		} else if n := len(have); n > 0 {
			i := random.IntN(n)
			h := have[i]
			if h.chunk[0] != h.mark || h.chunk[ChunkSize-1] != h.mark {
				t.Fatalf("step %d: a chunk was handed out twice", step)
			}
			s.Put(h.chunk)
			have[i] = have[n-1]
			have = have[:n-1]
		}
		most = max(most, len(have))
		if s.InUse() != len(have) {
			t.Fatalf("step %d: InUse %d with %d chunks out", step, s.InUse(), len(have))
		}
	}
	if most < 2*chunksPerSlab {
		t.Fatalf("no more than %d chunks were out at once", most)
	}
	for _, h := range have {
		s.Put(h.chunk)
	}
	if s.Mapped() != Size {
		t.Errorf("%d bytes mapped with nothing in use, want one slab", s.Mapped())
	}
	s.Trim()
	if s.Mapped() != 0 {
		t.Errorf("%d bytes mapped after Trim", s.Mapped())
	}
	s.Trim()
	if s.Get() == nil {
		t.Error("nothing after Trim")
	}
}

func TestSlabsInUseFillUpBeforeAnEmptyOne(t *testing.T) {
	var s Slabs
	defer s.Close()
	var chunks []*[ChunkSize]byte
	for range 2 * chunksPerSlab {
		chunks = append(chunks, s.Get())
	}
	for _, c := range chunks[:chunksPerSlab+1] { // the first slab empty, one chunk of the second free
		s.Put(c)
	}
	if got := s.Get(); got != chunks[chunksPerSlab] {
		t.Error("the empty slab was begun while another had room")
	}
}

func TestGetAndPutDoNotAllocate(t *testing.T) {
	var s Slabs
	defer s.Close()
	s.Get()
	if n := testing.AllocsPerRun(100, func() { s.Put(s.Get()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

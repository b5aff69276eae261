package frame

import (
	"bytes"
	"testing"
)

func TestHeadersStayWhereTheyAreWhileTheBatchGrows(t *testing.T) {
	var b Batch
	const n = 5*slabFrames + 3
	headers := make([][]byte, n)
	for i := range n {
		size := 1 + i%MaxHeader
		h := b.Append(size).Header
		if len(h) != size {
			t.Fatalf("header %d has %d bytes, want %d", i, len(h), size)
		}
		for j := range h {
			h[j] = byte(i)
		}
		headers[i] = h
	}
	if b.Len() != n || len(b.Frames()) != n {
		t.Fatalf("Len %d, %d frames, want %d", b.Len(), len(b.Frames()), n)
	}
	for i, f := range b.Frames() {
		if &f.Header[0] != &headers[i][0] {
			t.Fatalf("header %d moved", i)
		}
		if want := bytes.Repeat([]byte{byte(i)}, 1+i%MaxHeader); !bytes.Equal(f.Header, want) {
			t.Fatalf("header %d was overwritten: %x", i, f.Header)
		}
	}
}

func TestHeaderThatGrowsDoesNotRunIntoTheNext(t *testing.T) {
	var b Batch
	first := b.Append(10).Header
	second := b.Append(10).Header
	for i := range second {
		second[i] = 7
	}
	full := append(first, make([]byte, MaxHeader-10+1)...) // one more than its room
	for i := range full {
		full[i] = 9
	}
	if !bytes.Equal(second, bytes.Repeat([]byte{7}, 10)) {
		t.Errorf("the second header became %x", second)
	}
}

func TestFrameLooksNewAfterReset(t *testing.T) {
	var b Batch
	f := b.Append(20)
	f.Payload = [2][]byte{{1}, {2, 3}}
	f.Offload = Offload{NeedsChecksum: true, GSOType: GSOTCPv6, GSOSize: 1440, HeaderLen: 74}
	b.Reset()
	if b.Len() != 0 || len(b.Frames()) != 0 {
		t.Fatalf("Len %d after Reset", b.Len())
	}
	f = b.Append(20)
	if f.Offload != (Offload{}) || f.Payload[0] != nil || f.Payload[1] != nil {
		t.Errorf("a frame remembers the one before: %+v", f)
	}
}

func TestResetLetsGoOfPayload(t *testing.T) {
	var b Batch
	b.Append(1).Payload[0] = make([]byte, 100)
	frames := b.Frames()
	b.Reset()
	if frames[0].Payload[0] != nil || frames[0].Header != nil {
		t.Error("the batch at rest still refers to a payload")
	}
}

func TestAppendCopyKeepsItsOwnCopy(t *testing.T) {
	var b Batch
	payload := make([]byte, 50)
	for round := range 3 { // the second and third reuse memory
		for i := range 100 {
			for j := range payload {
				payload[j] = byte(i + round)
			}
			b.AppendCopy(4, payload[:1+(i*7+round)%50])
			if f := b.AppendCopy(4, nil); len(f.Payload[0]) != 0 {
				t.Fatal("an empty payload is not empty")
			}
		}
		for i := range 100 {
			want := bytes.Repeat([]byte{byte(i + round)}, 1+(i*7+round)%50)
			if got := b.Frames()[2*i].Payload[0]; !bytes.Equal(got, want) {
				t.Fatalf("round %d, payload %d is %x, want %x", round, i, got, want)
			}
		}
		b.Reset()
	}
}

func TestLenIsWhatAppendToAppends(t *testing.T) {
	f := Frame{Header: []byte{1, 2}, Payload: [2][]byte{{3, 4, 5}, {6}}}
	got := f.AppendTo([]byte{0})
	if want := []byte{0, 1, 2, 3, 4, 5, 6}; !bytes.Equal(got, want) || f.Len() != 6 {
		t.Errorf("%v, Len %d, want %v, 6", got, f.Len(), want)
	}
	if empty := (&Frame{}); empty.Len() != 0 || len(empty.AppendTo(nil)) != 0 {
		t.Error("an empty frame has bytes")
	}
}

func TestReusedBatchAllocatesNothing(t *testing.T) {
	var b Batch
	payload := make([]byte, 1460)
	round := func() {
		for range 3 * slabFrames {
			b.Append(54).Payload[0] = payload
			b.AppendCopy(54, payload)
		}
		b.Reset()
	}
	round()
	if n := testing.AllocsPerRun(10, round); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	var batch Batch
	payload := make([]byte, 65536)
	for b.Loop() {
		if batch.Len() == 64 {
			batch.Reset()
		}
		f := batch.Append(66)
		f.Payload[0] = payload
		f.Offload = Offload{NeedsChecksum: true, ChecksumStart: 34, ChecksumOffset: 16, GSOType: GSOTCPv4, GSOSize: 1448, HeaderLen: 66}
	}
}

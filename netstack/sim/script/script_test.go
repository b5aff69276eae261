package script

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func replace(s, old, new string) string { return strings.ReplaceAll(s, old, new) }

func TestScripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.script")
	if err != nil || len(paths) < 15 {
		t.Fatalf("%d scripts, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".script"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := Run(string(text)); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		})
	}
}

// An interpreter that lets anything pass would make every script green.
func TestInterpreterNoticesWhatIsWrong(t *testing.T) {
	for name, script := range map[string]string{
		"unexpected segment": "+0 listen 1\n+0 < S 0\n",
		"nothing sent":       "+0 listen 1\n+0 > S. 0 ack 1\n",
		"wrong flags":        "+0 listen 1\n+0 < S 0\n+0 > R. 0 ack 1\n",
		"wrong ack":          "+0 listen 1\n+0 < S 0\n+0 > S. 0 ack 2\n",
		"wrong options":      "+0 listen 1\n+0 < S 0 <mss 1000>\n+0 > S. 0 ack 1 <mss 1459>\n",
		"too early":          "+0 listen 1\n+0 < S 0\n+0.01 > S. 0 ack 1\n",
		"too late":           "+0 listen 1\n+0 < S 0\n+0 > S. 0 ack 1\n+0.9 > S. 0 ack 1\n",
		"wrong state":        "+0 dial\n+0 > S 0\n+0 state ESTABLISHED\n",
		"no connection":      "+0 listen 1\n+0 accept\n",
		"bad flag":           "+0 < X 0\n",
		"bad verb":           "+0 frobnicate\n",
		"late setting":       "+0 listen 1\nset mtu 1280\n",
		"no time":            "listen 1\n",
		"not read":           opened + "+0 < P. 1:11 ack 1\n+0 > . 1 ack 11\n+0 read-all 9\n",
	} {
		if err := Run(script); err == nil {
			t.Errorf("%s goes unnoticed", name)
		}
	}
}

// TestEveryOrderOfFiveSegments delivers five segments in each of their 120
// orders. The stack checks nothing but numbers; the reader gets the bytes.
func TestEveryOrderOfFiveSegments(t *testing.T) {
	n := 0
	permute([]int{0, 1, 2, 3, 4}, 0, func(order []int) {
		n++
		script := opened
		got, acks := map[int]bool{}, 1
		for _, i := range order {
			script += fmt.Sprintf("+0.001 < . %d:%d ack 1\n", 1+i*1000, 1001+i*1000)
			got[i] = true
			for got[(acks-1)/1000] {
				acks += 1000
			}
			script += fmt.Sprintf("+0 > . 1 ack %d\n", acks)
		}
		script += "+0 read-all 5000\n+0 buffered 0\n"
		if err := Run(script); err != nil {
			t.Fatalf("order %v: %v\nscript:\n%s", order, err, script)
		}
	})
	if n != 120 {
		t.Fatalf("%d orders", n)
	}
}

// TestOverlapWithWhatWasReceived delivers a segment over the left edge of the
// window by every length: what is old is trimmed, not the segment dropped.
func TestOverlapWithWhatWasReceived(t *testing.T) {
	for from := 1; from <= 100; from++ {
		script := opened + "+0 < . 1:101 ack 1\n+0 > . 1 ack 101\n"
		script += fmt.Sprintf("+0 < . %d:%d ack 1\n+0 > . 1 ack 201\n+0 read-all 200\n", from, 201)
		if err := Run(script); err != nil {
			t.Fatalf("from %d: %v", from, err)
		}
	}
}

func permute(a []int, k int, f func([]int)) {
	if k == len(a) {
		f(a)
		return
	}
	for i := k; i < len(a); i++ {
		a[k], a[i] = a[i], a[k]
		permute(a, k+1, f)
		a[k], a[i] = a[i], a[k]
	}
}

// TestOverlapGrid delivers two segments that overlap in every way, behind a gap,
// and then what is missing. Every byte is read once, and in order.
func TestOverlapGrid(t *testing.T) {
	edges := []int{101, 201, 301, 401, 501}
	n := 0
	forRanges := func(f func(l, r int)) {
		for i, l := range edges {
			for _, r := range edges[i+1:] {
				f(l, r)
			}
		}
	}
	for _, first := range []int{1, 101} { // with and without a gap in front
		forRanges(func(l1, r1 int) {
			forRanges(func(l2, r2 int) {
				n++
				script := opened
				for _, r := range [][2]int{{l1, r1}, {l2, r2}} {
					script += fmt.Sprintf("+0.001 < . %d:%d ack 1\n+0 any 1\n", r[0], r[1])
				}
				script += fmt.Sprintf("+0.001 < . %d:501 ack 1\n+0 any 1\n", first)
				if first > 1 {
					script += "+0.001 < . 1:101 ack 1\n+0 > . 1 ack 501\n"
				}
				script += "+0 read-all 500\n+0 < . 501 ack 1\n+0 nothing\n"
				if err := Run(script); err != nil {
					t.Fatalf("[%d,%d) and [%d,%d), then from %d: %v\nscript:\n%s", l1, r1, l2, r2, first, err, script)
				}
			})
		})
	}
	if n != 200 {
		t.Fatalf("%d cases", n)
	}
}

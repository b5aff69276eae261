package impair

import (
	"strings"
	"testing"
	"time"
)

func TestParseReadsEveryPart(t *testing.T) {
	got, err := Parse("delay=50ms,jitter=5ms,loss=1%,reorder=0.1%,dup=0.2%,rate=20mbit,corrupt=0.01%,burst=3.5,seed=7,limit=500")
	if err != nil {
		t.Fatal(err)
	}
	want := Spec{
		Delay: 50 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 1, Burst: 3.5, Reorder: 0.1, Duplicate: 0.2,
		Corrupt: 0.01, Rate: 20e6, Limit: 500, Seed: 7,
	}
	if got != want {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	const text = "delay=50ms,jitter=5ms,loss=1%,burst=3.5,reorder=0.1%,dup=0.2%,corrupt=0.01%,rate=20mbit,limit=500,seed=7"
	if got.String() != text {
		t.Errorf("%q\nwant %q", got.String(), text)
	}
}

func TestStringIsWhatParseTakes(t *testing.T) {
	for text, want := range map[string]string{
		"none":                 "none",
		"seed=0":               "none",
		"loss=0%":              "none",
		"loss=+1%":             "loss=1%",
		"loss=-0%":             "none",
		"delay=1500us":         "delay=1.5ms",
		"delay=1m":             "delay=1m0s",
		"rate=1500kbit":        "rate=1500kbit",
		"rate=1.5mbit":         "rate=1500kbit",
		"rate=1000000bit":      "rate=1mbit",
		"rate=1001bit":         "rate=1001bit",
		"loss=100%":            "loss=100%",
		"loss=0.0000001%":      "loss=0.0000001%",
		"burst=2,loss=1%":      "loss=1%,burst=2",
		"jitter=5ms,delay=5ms": "delay=5ms,jitter=5ms",
	} {
		s, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := s.String(); got != want {
			t.Errorf("%s became %s, want %s", text, got, want)
		} else if again, err := Parse(got); err != nil || again != s {
			t.Errorf("%s: %+v, %v, want %+v again", got, again, err, s)
		}
	}
}

func TestErrorsAreOneLineThatNamesThePart(t *testing.T) {
	for text, want := range map[string]string{
		"":                        `"": not an impairment; there are delay, jitter, loss`,
		"delay=50ms,":             `"": not an impairment`,
		"latency=5ms":             "latency=5ms: not an impairment",
		"loss":                    "loss: not a percentage; write one like 0.5%",
		"loss=1":                  "loss=1: not a percentage",
		"loss=x%":                 "loss=x%: not a percentage",
		"loss=%":                  "loss=%: not a percentage",
		"loss=NaN%":               "loss=NaN%: not a percentage",
		"loss=Inf%":               "loss=Inf%: not a percentage",
		"loss=0x1p-2%":            "loss=0x1p-2%: not a percentage",
		"loss=101%":               "loss=101%: more than 100%",
		"dup=-1%":                 "dup=-1%: a percentage can't be negative",
		"reorder=1%%":             "reorder=1%%: not a percentage",
		"delay=50":                "delay=50: not a time; write one with its unit, like 50ms",
		"delay=-5ms":              "delay=-5ms: a time can't be negative",
		"delay=2h":                "delay=2h: more than 1m0s",
		"jitter=5ms":              "jitter=5ms: more than the delay of 0s",
		"delay=5ms,jitter=6ms":    "jitter=6ms: more than the delay of 5ms",
		"rate=20":                 "rate=20: not a rate; write one like 20mbit",
		"rate=20mbps":             "rate=20mbps: not a rate",
		"rate=mbit":               "rate=mbit: not a rate",
		"rate=-1mbit":             "rate=-1mbit: a rate can't be negative",
		"rate=0mbit":              "rate=0mbit: less than 1kbit",
		"rate=1001gbit":           "rate=1001gbit: more than 1000gbit",
		"limit=0":                 "limit=0: not a number of packets",
		"limit=1e3":               "limit=1e3: not a number of packets",
		"seed=-1":                 "seed=-1: not a whole number",
		"burst=3":                 "burst=3: has no effect without loss",
		"burst=0.5,loss=1%":       "burst=0.5: not a number of packets",
		"burst=3,loss=100%":       "burst=3: has no effect when all is lost",
		"burst=2,loss=90%":        "burst=2: too short for a loss of 90%; make it 9 or more",
		"loss=1%,loss=2%":         "loss=2%: loss is there twice",
		"loss=1%\ndelay=5ms":      `"loss=1%\ndelay=5ms": not a percentage`,
		"none,loss=1%":            "none: not an impairment",
		"loss=1%, delay=5ms":      `" delay=5ms": not an impairment`,
		strings.Repeat("x", 1001): "impairment of 1001 bytes: too long",
	} {
		s, err := Parse(text)
		if err == nil {
			t.Errorf("%q was taken as %+v", text, s)
			continue
		}
		if got := err.Error(); !strings.HasPrefix(got, want) || strings.ContainsAny(got, "\n\r") {
			t.Errorf("%q: %s\nwant %s...", text, got, want)
		}
	}
}

func TestSeedAndLimitAloneImpairNothing(t *testing.T) {
	for text, zero := range map[string]bool{"none": true, "seed=3,limit=7": true, "loss=0.001%": false, "delay=1ns": false, "rate=1gbit": false} {
		if s, err := Parse(text); err != nil || s.IsZero() != zero {
			t.Errorf("%s: %v, %v, want %v", text, s.IsZero(), err, zero)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"none", "delay=50ms,jitter=5ms,loss=1%,reorder=0.1%,dup=0.1%,rate=20mbit", "loss=1%,burst=3,seed=1,limit=9,corrupt=1%", "rate=1.0005kbit", "loss=-0%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("more than a line: %q", err)
			}
			return
		}
		again, err := Parse(s.String())
		if err != nil || again != s {
			t.Fatalf("%q is %+v, written %q, and that is %+v, %v", text, s, s.String(), again, err)
		}
	})
}

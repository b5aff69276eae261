package linktest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sbxnet/tapdev"
)

func TestChoiceChangesWhatItSpeaksOf(t *testing.T) {
	t.Setenv(Env, " link=packet num-network-channels=4 gso=false\tsoftware-gso=true  gro=false tx-checksum-offload=false rx-checksum-offload=false\n")
	c := Chosen()
	o := tapdev.Options{Kind: tapdev.Auto, Name: "tap0", MTU: 1500, Queues: 1, GSO: true, GRO: true, TXChecksum: true, RXChecksum: true, QDisc: "fifo"}
	c.Apply(&o)
	if want := (tapdev.Options{Kind: tapdev.Packet, Name: "tap0", MTU: 1500, Queues: 4, SoftwareGSO: true, QDisc: "fifo"}); !equal(o, want) {
		t.Errorf("%+v, want %+v", o, want)
	}
	before := o
	if (Choice{}).Apply(&o); !equal(o, before) {
		t.Errorf("no choice makes %+v of %+v", o, before)
	}
}

func equal(a, b tapdev.Options) bool {
	return a.Kind == b.Kind && a.Name == b.Name && a.MTU == b.MTU && a.Queues == b.Queues && a.GSO == b.GSO && a.SoftwareGSO == b.SoftwareGSO &&
		a.GRO == b.GRO && a.TXChecksum == b.TXChecksum && a.RXChecksum == b.RXChecksum && a.QDisc == b.QDisc
}

func TestFlagsStandBeforeTheTestsOwn(t *testing.T) {
	c, err := Parse("link=packet gso=false")
	if err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"":                               "",
		"ls -q":                          "ls -q",
		"run":                            "run --link=packet --gso=false",
		"run --link tap -- sh":           "run --link=packet --gso=false --link tap -- sh",
		"attach 4211":                    "attach --link=packet --gso=false 4211",
		"run --network none -- true":     "run --network none -- true",
		"run --network=host -- true":     "run --network=host -- true",
		"run --network":                  "run --link=packet --gso=false --network",
		"run --network sandbox":          "run --link=packet --gso=false --network sandbox",
		"run -- podman --network none x": "run --link=packet --gso=false -- podman --network none x",
	} {
		if got := strings.Join(c.Arguments(strings.Fields(args)...), " "); got != want {
			t.Errorf("%q became %q, want %q", args, got, want)
		}
	}
	own := []string{"run", "--", "true"}
	if got := (Choice{}).Arguments(own...); !slices.Equal(got, own) {
		t.Errorf("no choice makes %q", got)
	}
}

// What the program is built with is read as what was chosen.
func TestChoiceIsBuiltIn(t *testing.T) {
	const text = "link=packet num-network-channels=4 gso=false"
	c, err := Parse("  " + strings.ReplaceAll(text, " ", "\t"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.String(); got != text {
		t.Errorf("%q, want %q", got, text)
	}
	if got, want := c.BuildFlags(), []string{"-tags=linktest", "-ldflags=-X 'sbxnet/cmd/sbxnet/network.choice=" + text + "'"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if s, err := Parse("gso=false splice=false"); err != nil || s.Splice() || !c.Splice() || !(Choice{}).Splice() {
		t.Errorf("splice=false is not read as that: %v, %v", s, err)
	}
	if got := (Choice{}).BuildFlags(); got != nil {
		t.Errorf("no choice is built in as %q", got)
	}
}

// What cannot be understood must not pass for a choice.
func TestChoicesThatDoNotExistAreErrors(t *testing.T) {
	for _, text := range []string{"link", "link=wire", "link=auto", "num-network-channels=0", "num-network-channels=65", "num-network-channels=two",
		"gso", "gso=off", "mtu=9000", "packet", "gso=false gso=true"} {
		if c, err := Parse(text); err == nil || !strings.HasPrefix(err.Error(), text[:3]) || len(c.Flags()) != 0 {
			t.Errorf("%q: %v, %v", text, c.Flags(), err)
		}
		t.Setenv(Env, text)
		func() {
			defer func() {
				if said := fmt.Sprint(recover()); !strings.HasPrefix(said, Env+": "+text[:3]) {
					t.Errorf("%q: %s", text, said)
				}
			}()
			Chosen()
		}()
	}
}

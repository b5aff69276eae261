package tapdev

import (
	"encoding/json"
	"testing"
)

func testOptions(kind Kind) Options {
	return Options{
		Kind: kind, Name: "tap0", MTU: 1500, Queues: 1,
		HardwareAddr: []byte{2, 0, 0, 0, 0, 100},
		GSO:          true, SoftwareGSO: true, GRO: true, TXChecksum: true, RXChecksum: true,
		QDisc: "none",
	}
}

// openLink opens and attaches, with Info going over as JSON as it does between
// the sandbox's first process and sbxnet.
func openLink(t *testing.T, o Options) (Info, Link) {
	t.Helper()
	info, files, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	var got Info
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	l, err := Attach(got, files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return got, l
}

func TestKernelOffersAllOffloads(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, kind := range []Kind{TAP, Packet} {
		t.Run(string(kind), func(t *testing.T) {
			if kind == TAP {
				needTAP(t)
			}
			o := testOptions(kind)
			o.Name = "t-" + string(kind)
			info, l := openLink(t, o)
			t.Logf("%+v", info)
			c := l.Capabilities()
			if !c.TSO4 || !c.TSO6 || !c.USO || c.MaxFrame < 65535 {
				t.Errorf("capabilities %+v", c)
			}
			if info.Kind != kind || !info.VnetHeader || !info.KernelTSO {
				t.Errorf("info %+v", info)
			}
		})
	}
}

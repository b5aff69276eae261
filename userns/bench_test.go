package userns

import "testing"

// BenchmarkStart is the time from Start to the end of a command that does
// nothing; with a link it is what sbxnet run -- true has to pay here.
func BenchmarkStart(b *testing.B) {
	for name, cfg := range map[string]Config{"none": unlinked(), "link": linked()} {
		for _, m := range []UserMap{MapSingle, MapAuto} {
			b.Run(name+"/"+string(m), func(b *testing.B) {
				cfg.UserMap = m
				cfg.Command = []string{"true"}
				for b.Loop() {
					sb, err := Start(cfg)
					if err != nil {
						b.Fatal(err)
					}
					if err := sb.Exec(); err != nil {
						b.Fatal(err)
					}
					if status, err := sb.Wait(); status != 0 || err != nil {
						b.Fatal(status, err)
					}
					if err := sb.Close(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkSockets is what sockets cost once answers to them are steered: 16 are
// what a forwarder takes at a time.
func BenchmarkSockets(b *testing.B) {
	cfg := linked()
	cfg.Command = []string{"sleep", "1000"}
	sb, err := Start(cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer sb.Close()
	for b.Loop() {
		files, err := sb.Sockets(false, 16)
		if err != nil {
			b.Fatal(err)
		}
		closeAll(files)
	}
}

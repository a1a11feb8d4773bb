package hosttest

import (
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/hbohlen/deployer/phases/host"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder takes the failures that a Fake reports.
type recorder struct {
	testing.TB
	failures int
	cleanup  []func()
}

func (r *recorder) Errorf(string, ...any) { r.failures++ }
func (r *recorder) Cleanup(f func())      { r.cleanup = append(r.cleanup, f) }

func (r *recorder) end() int {
	for _, f := range r.cleanup {
		f()
	}
	return r.failures
}

func TestFakeAnswersByRule(t *testing.T) {
	f := New(t, "web1")
	f.OnArgs("uname", "-m").Out("x86_64\n").Once()
	f.On(Prefix("systemctl", "is-active")).Reply(3, "failed\n", "")
	f.On(Prefix("cat")).Do(func(c host.Command, in io.Reader, out io.Writer) host.Result {
		io.Copy(out, in)
		return host.Result{}
	})
	for _, c := range []struct {
		args []string
		out  string
		code int
	}{{[]string{"uname", "-m"}, "x86_64\n", 0}, {[]string{"systemctl", "is-active", "nginx"}, "failed\n", 3}, {[]string{"cat", "/dev/stdin"}, "in", 0}} {
		res, err := f.Run(t.Context(), host.Command{Args: c.args, Stdin: strings.NewReader("in")})
		if err != nil || res.Code != c.code || string(res.Stdout) != c.out {
			t.Errorf("%q: %+v, %v", c.args, res, err)
		}
	}
	if got := strings.Join(f.Lines(), "|"); got != "uname -m|systemctl is-active nginx|cat /dev/stdin" {
		t.Errorf("recorded %s", got)
	}
}

func TestFakeFailsOnTheUnexpectedAndOnTheUnused(t *testing.T) {
	r := &recorder{TB: t}
	f := New(r, "web1")
	f.OnArgs("never").Once()
	if _, err := f.Run(t.Context(), host.Command{Args: []string{"rm"}}); err == nil {
		t.Error("an unexpected command has a result")
	}
	if n := r.end(); n != 2 {
		t.Errorf("%d failures, want 2", n)
	}
}

func TestFakeLosesItsConnection(t *testing.T) {
	f := New(t, "web1")
	f.OnArgs("reboot").Do(func(host.Command, io.Reader, io.Writer) host.Result { f.Lose(); return host.Result{} })
	f.OnArgs("true")
	_, err := f.Run(t.Context(), host.Command{Args: []string{"reboot"}})
	wantKind(t, err, host.Lost)
	<-f.Lost()
	_, err = f.Run(t.Context(), host.Command{Args: []string{"true"}})
	wantKind(t, err, host.Lost)
	f.Unreachable(&host.Error{Kind: host.Refused})
	_, err = f.Fresh(t.Context())
	wantKind(t, err, host.Refused)
	f.Unreachable(nil)
	again, err := f.Fresh(t.Context())
	if err != nil || f.Dials() != 2 {
		t.Fatal(err, f.Dials())
	}
	if _, err := again.Run(t.Context(), host.Command{Args: []string{"true"}}); err != nil {
		t.Error(err)
	}
}

func TestFakeProcess(t *testing.T) {
	f := New(t, "web1")
	f.OnArgs("agent").Do(func(_ host.Command, in io.Reader, out io.Writer) host.Result {
		_, err := io.Copy(out, in)
		if err != nil {
			return host.Result{Code: 1}
		}
		return host.Result{}
	})
	p, _ := f.Start(t.Context(), host.Command{Args: []string{"agent"}})
	go func() { io.WriteString(p, "hello"); p.CloseWrite() }()
	got, _ := io.ReadAll(p)
	if res, err := p.Wait(); string(got) != "hello" || err != nil || res.Code != 0 {
		t.Errorf("%q %+v %v", got, res, err)
	}
	p, _ = f.Start(t.Context(), host.Command{Args: []string{"agent"}})
	f.Lose()
	_, err := p.Wait()
	wantKind(t, err, host.Lost)
}

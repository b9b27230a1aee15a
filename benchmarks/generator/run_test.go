package main

import (
	"testing"
	"time"
)

// arrive lets 1,000 requests per second arrive for 0.2 s, each taking this long, and returns how many were sent.
func arrive(a *arrivals, busy time.Duration) (sent int64) {
	now := time.Now()
	go a.schedule(1000, window{now, now.Add(200 * time.Millisecond)}, 10)
	for range a.queue {
		sent++
		time.Sleep(busy)
		a.free <- struct{}{}
	}
	return sent
}

func TestEveryArrivalIsSentOrCounted(t *testing.T) {
	idle, busy := newArrivals(1000), newArrivals(1)
	all := arrive(idle, 0) + idle.unsent
	sent := arrive(busy, 20*time.Millisecond)
	// The gaps are the same both times; only the end of the window within them differs a little.
	if total := sent + busy.unsent; total < all-5 || total > all+5 {
		t.Errorf("%d sent and %d unsent, expected %d in all", sent, busy.unsent, all)
	}
	if sent < 2 || sent > 11 {
		t.Errorf("%d sent over a connection that is busy for 20 ms each time, of 200 ms", sent)
	}
}

func TestNothingIsSentWhereNoConnectionIsEverFree(t *testing.T) {
	a := newArrivals(1)
	<-a.free
	now := time.Now()
	a.schedule(1000, window{now, now.Add(100 * time.Millisecond)}, 10)
	if _, sent := <-a.queue; sent {
		t.Error("a request was sent")
	}
	if a.unsent < 50 {
		t.Errorf("%d unsent of about 100", a.unsent)
	}
}

//! Tests of heat: what is asked often is hot, it fades, and the table stays as large as it is.

use super::*;
use crate::builds::tests::Site;

const MINUTE: f32 = 60.0;

#[tokio::test]
async fn what_is_asked_again_and_again_has_its_rate_and_fades() {
    let site = Site::new().await;
    let (often, seldom) = (site.target("id", &["x"]).await, site.target("id", &["y"]).await);
    let heat = Heat::default();
    let mut now = 0.0;
    for minute in 0..60 {
        now = MINUTE * minute as f32;
        for _ in 0..10 {
            heat.note_at(&often, 6, Duration::from_micros(6 * 200), now);
        }
        heat.note_at(&seldom, 1, Duration::from_micros(200), now);
    }
    let hot = heat.hottest_at(now);
    assert_eq!(hot.iter().map(|hot| hot.target.id).collect::<Vec<_>>(), [often.id, seldom.id]);
    assert!((50.0..75.0).contains(&hot[0].keys_per_minute), "{:?}", hot[0]);
    assert!((10_000.0..15_000.0).contains(&hot[0].micros_per_minute), "{:?}", hot[0]);
    let later = heat.hottest_at(now + HALF_LIFE.as_secs_f32());
    let left = later[0].micros_per_minute / hot[0].micros_per_minute;
    assert!((0.49..0.51).contains(&left), "{left}");
    assert!(heat.hottest_at(now + 40.0 * HALF_LIFE.as_secs_f32())[0].micros_per_minute < 1e-3);
    heat.forget(|target| target.id == often.id);
    assert_eq!(heat.hottest_at(now)[0].target.id, seldom.id);
}

#[tokio::test]
async fn one_slow_key_counts_no_more_than_a_bound() {
    let site = Site::new().await;
    let (slow, fast) = (site.target("id", &["x"]).await, site.target("id", &["y"]).await);
    let heat = Heat::default();
    heat.note_at(&slow, 1, Duration::from_secs(30), 0.0);
    heat.note_at(&fast, 3, Duration::from_micros(60_000), 0.0);
    assert_eq!(heat.hottest_at(0.0)[0].target.id, fast.id);
}

#[tokio::test]
async fn it_is_bounded_and_what_is_hot_stays() {
    let site = Site::new().await;
    let first = site.target("id", &["x"]).await;
    let heat = Heat::default();
    // Questions that are still in use elsewhere: only those count.
    let kept: Vec<_> = (0..5 * BUCKETS * WAYS)
        .map(|number| {
            heat.note_at(&first, 1, Duration::from_micros(500), 0.0);
            let mut target = FileTarget::new(&first.place, &first.version, Arc::clone(&first.prepared));
            // In a row, as ids are where nobody else takes any.
            target.id = first.id + 1 + number as u64;
            let target = Arc::new(target);
            heat.note_at(&target, 1, Duration::from_micros(500), 0.0);
            target
        })
        .collect();
    let hot = heat.hottest_at(0.0);
    assert_eq!((hot.len(), hot[0].target.id), (BUCKETS * WAYS, first.id));
    drop((kept, hot));
    assert_eq!(heat.hottest_at(0.0).len(), 1, "what nobody holds is not built for");
}

//! The work of a plan for one more instance in a large service.
//!
//! Owns the bound on looks at records that stay as they are. Refuses to measure time.

use super::*;
use crate::model::LOOKS_AT_WRITERS;

#[test]
fn one_more_instance_costs_one_look_at_the_writer_of_each_record() {
    let address = |n: usize| format!("10.0.{}.{}:80", n / 250, n % 250 + 1);
    let mut scene = Scene::with_endpoints(&[]);
    for n in 0..1000 {
        scene = scene.own(&address(n), "c1/shop/echo");
        scene.endpoints.insert(addr(&address(n)));
    }
    scene.endpoints.insert(addr(&address(1000)));
    LOOKS.set(0);
    LOOKS_AT_WRITERS.set(0);
    assert_eq!(scene.plan().ops.len(), 1);
    assert_eq!((LOOKS.get(), LOOKS_AT_WRITERS.get()), (1000, 1000), "looks at addresses and at writers");
}

//! Counters of servers and programs, from their pages of metrics.
//!
//! Owns the reading of the text format. Refuses to know the meaning of a counter.

use anyhow::Result;
use kube::Client;

/// The page of the API server.
pub async fn of_apiserver(client: &Client) -> Result<String> {
    Ok(client.request_text(http::Request::get("/metrics").body(Vec::new())?).await?)
}

/// The sum of the lines of a metric whose labels contain all of these.
pub fn sum(page: &str, name: &str, labels: &[&str]) -> f64 {
    let of_metric =
        |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '));
    page.lines()
        .filter(of_metric)
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_the_labels_are_added_up() {
        let page = "# TYPE a counter\na{code=\"429\",verb=\"GET\"} 3\na{code=\"429\"} 4\na{code=\"200\"} 5\nab 7\n";
        assert_eq!(sum(page, "a", &["code=\"429\""]), 7.0);
        assert_eq!(sum(page, "a", &[]), 12.0);
        assert_eq!(sum(page, "ab", &[]), 7.0);
        assert_eq!(sum(page, "b", &[]), 0.0);
    }
}

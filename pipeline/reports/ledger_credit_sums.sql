-- What `credit_sums.sql` has of some days' lines, added up, with the day whose runs they come from.
SELECT
    day AS stored_day,
    resource_kind,
    product,
    basis,
    unknown_why,
    charged_on,
    processor_id,
    processor_name,
    processor_version,
    workspace_id,
    file_type,
    source,
    line = 1 AS is_first,
    is_first_of_product,
    sum(credits) AS credits,
    count(*) AS lines
FROM lines
GROUP BY ALL
